"""3. Who gets to answer."""
