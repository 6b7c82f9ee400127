"""How it answers: an OpenAI-compatible endpoint that speaks as every published user.

In reading order:

schema.py     what goes in and out over HTTP
access.py     who may speak as whom
memories.py   published states, kept by bytes
words.py      tokens into text as they come
ask.py        one answer wanted
line.py       asks that wait, and whose turn it is
engine.py     rows of different users in one running batch
answering.py  asks in the engine, seen from an event loop
service.py    from a request to asks
guard.py      what stands around every route
routes.py     the HTTP edge
address.py    where a server listens
app.py        its Ray Serve shell, the only file that knows Ray
web/          the page
"""
