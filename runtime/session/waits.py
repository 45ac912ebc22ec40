"""A session's calls for event loops."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Unpack

from eptx.runtime.generation.outputs import Generated, Piece
from eptx.runtime.generation.prompts import Prompts
from eptx.runtime.generation.settings import SearchOptions
from eptx.runtime.outputs import Outputs
from eptx.runtime.requests.images.reader import Images
from eptx.runtime.requests.tasks import TaskNames
from eptx.runtime.requests.tokenizer import Text
from eptx.runtime.session.generates import Generates

#: Arrays by input name, texts, or images.
Inputs = Mapping[str, Any] | Text | Images


class Waits(Generates, ABC):
    """The part of `Session` that event loops wait for: each call runs in a thread of the loop's executor."""

    @abstractmethod
    def run(self, inputs: Inputs, task: TaskNames = None) -> Outputs:
        """See `Session.run`."""

    async def arun(self, inputs: Inputs, task: TaskNames = None) -> Outputs:
        """`run`, while the event loop goes on."""
        return await asyncio.to_thread(self.run, inputs, task)

    async def agenerate(self, prompts: Prompts, task: TaskNames = None, **options: Unpack[SearchOptions]) -> Generated:
        """`generate`, while the event loop goes on."""
        return await asyncio.to_thread(self.generate, prompts, task, **options)

    async def astream(
        self, prompts: Prompts, task: TaskNames = None, **options: Unpack[SearchOptions]
    ) -> AsyncIterator[Piece]:
        """`stream`, while the event loop goes on between pieces.

        If what reads it stops or is cancelled, the answer ends after the step that runs.
        """
        stream = await asyncio.to_thread(self.stream, prompts, task, **options)
        async with aclosing(stream.in_threads()) as pieces:
            async for piece in pieces:
                yield piece
