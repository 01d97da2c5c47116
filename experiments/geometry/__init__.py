"""How many evaluations does a Gaussian warm start save?"""
