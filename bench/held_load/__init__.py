"""A real daemon under load for minutes while everything around it breaks, and an account of every single request.

    python -m bench.held_load [--seconds 600] [--json result.json]

`world.py` starts what there is: the daemon, Redis, PostgreSQL. `locustfile.py` are its polite users, in a process of
locust's own. `rude.py` are the clients that nobody wants, `faults.py` what breaks. Everybody sends requests with ids of
their own; `account.py` holds what each client saw against what the daemon's access log says.
"""
