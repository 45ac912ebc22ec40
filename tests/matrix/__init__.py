"""What exports: tiny random models of every architecture, and every PEFT setting, judged by PEFT's own forward.

`make matrix` runs all of it and writes docs/supported.md; the tests run a part. A cell is right, or it is refused with
the very message that `refusals.py` lists.
"""
