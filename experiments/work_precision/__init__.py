"""How accurate is which solver, for how many evaluations and how many seconds?"""
