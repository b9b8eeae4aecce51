"""What we are compared with: each file is one server, started as `python FILE MODEL_FOLDER PORT`."""
