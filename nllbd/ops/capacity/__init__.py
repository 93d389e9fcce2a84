"""How many people a host serves: measured on itself (measure.py), by a queueing model (model.py), held against the
deployment guide's tiers (tiers.py); and what hardware that is not here would do, computed (roofline.py).
"""
