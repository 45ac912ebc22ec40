"""Routes on data: the trained model runs rows in PyTorch, by the live route and by frozen ones.

row_tokenizer -> reference_runner -> task_routes (one task) -> study (an adapter)
"""
