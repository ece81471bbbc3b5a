"""The sandbox venue: a SPACEDEX to run against, with a seeded market and faults that play by script.

It plays the other side, so it shares no parser, no type and no table with the mirror. What it serves is
written from the venue's page alone; a misreading in the mirror is not hidden by the same misreading here.

    books.py     what is true: orders, fills and balances as a fold over events, exact to the last digit
    market.py    the seeded market: what happens next
    dialects.py  the four ways a venue may say it
    rest.py      the REST API: keys, signatures, weights, pages
    sockets.py   one WebSocket, with control of every byte
    nonsense.py  what cannot be, made from what is true
    front.py     the port itself: HTTP requests in, answers out
    faults.py    what goes wrong, and when
    server.py    the server that holds them together: ``Sandbox`` in process, ``serve`` as a program
"""
