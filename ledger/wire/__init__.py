"""The world: the only room that touches the network, the database driver and time."""
