"""The schema and its sentences.

``tables`` describes what is stored, ``apply.sql`` is the only writer of facts, ``coverage.sql`` of gaps; ``views.sql``
is the contract other people rely on, ``reads`` what the program itself asks. Everything executes on the connection it
is handed.
"""
