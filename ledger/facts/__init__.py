"""What is true, in our words. Imports only the standard library."""
