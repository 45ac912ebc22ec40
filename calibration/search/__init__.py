"""The search: stores the model in one way after the other, measures each, and finds the best within the budget.

trial, trial_cache, latency -> evaluator -> search
"""
