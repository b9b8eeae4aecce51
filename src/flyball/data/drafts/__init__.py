"""A first contract from data: what a file seems to hold."""
