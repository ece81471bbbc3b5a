"""The seeded simulation: the real consumer, reconciler and apply function in a world whose every event a seed chooses.

One event loop with virtual time (``loop``), a real PostgreSQL whose calls happen one at a time (``database``), a venue
made of the sandbox's books and market (``venue``), mirror processes that can be killed or paused at any step
(``mirror``), what a seed chooses (``scenario``), the run from trouble to health (``world``), and what must hold then
(``checks``). ``python -m tests.simulation`` runs seeds; the same seed is the same run, event by event.
"""
