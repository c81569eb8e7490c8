"""What the released training libraries compute, measured: ``make libraries``.

Releases are fetched as wheels and never installed or imported. Functions are taken out of them by
name, called with strict stand-ins for everything around them, and asked by automatic
differentiation which divergence they penalise. What comes out is chapters/libraries.json, of which
the tables of the chapter are made.

``wheels`` fetches, ``extract`` takes functions out of source files, ``stand_ins`` is what they are
called with, ``trainers`` has one entry a library, ``measure`` makes the rows.
"""
