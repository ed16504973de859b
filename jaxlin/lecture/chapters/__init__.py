"""The sections of the lecture: `chapter(lesson)` of each module measures and returns one."""
