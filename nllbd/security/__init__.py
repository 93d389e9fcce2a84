"""Who may come in and how often: credentials, sessions, rates, quotas. Knows no HTTP, no dialect and no database
driver: the store is seen through the protocols of `ports`.
"""
