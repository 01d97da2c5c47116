"""Which order does each solver have?"""
