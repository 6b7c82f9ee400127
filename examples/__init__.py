"""Example users: invented people, what they told an assistant, and what they asked of it.

In reading order: `world` (what may be true of a person), `tellings` and `questions` (how it is
told and asked), `smalltalk` (what stands between), `manners` (how it is said), `people` (who a
person is), `log` (what one said, line by line), `generate` (the two files of a run); then
`interview` (the same questions to several models) and `demo` (the main job from nothing).
"""
