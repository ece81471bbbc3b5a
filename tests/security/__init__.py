"""The program attacked as it runs: hostile words of a venue, readers that go away, devices that are full."""
