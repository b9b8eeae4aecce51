"""Steps of a preparation, and the tables that it looks things up in."""
