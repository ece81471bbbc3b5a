"""What is built from the repository, and what it is where it is installed."""
