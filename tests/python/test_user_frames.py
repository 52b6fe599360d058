"""Whose frame it is: the package's, in whatever room, or the user's."""

from __future__ import annotations

import asyncio
import pathlib
import sys

from support import only_fiberback

pytestmark = only_fiberback


def frame_in(filename):
    frames = []
    exec(
        compile("keep(frame())", str(filename), "exec"),
        {"keep": frames.append, "frame": sys._getframe},
    )
    return frames[0]


def test_every_room_is_ours():
    import fiberback
    from fiberback import _user_frames

    files = list(pathlib.Path(fiberback.__file__).parent.rglob("*.py"))
    assert len(files) > 40
    for file in files:
        assert _user_frames.is_ours(str(file))
        assert not _user_frames.is_users(frame_in(file))
    assert not _user_frames.is_users(frame_in(asyncio.tasks.__file__))


def test_neighbours_whose_names_begin_alike_are_the_users():
    import fiberback
    from fiberback import _user_frames

    for folder in (pathlib.Path(fiberback.__file__).parent, pathlib.Path(asyncio.__file__).parent):
        file = folder.with_name(folder.name + "_app") / "views.py"
        assert not _user_frames.is_ours(str(file))
        assert _user_frames.is_users(frame_in(file))
    assert _user_frames.is_users(frame_in(__file__))
