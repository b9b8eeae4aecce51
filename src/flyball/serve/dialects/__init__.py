"""The ways to speak of questions and answers over HTTP: our own, and two of others; `spoken` lists them."""
