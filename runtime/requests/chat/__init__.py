"""Chats: from messages to the prompt that a bundle's chat template makes of them."""
