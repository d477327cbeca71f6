"""What strangers may send us, made up by the million: ``scripts/fuzz``.

``targets.py`` says what is fed to what, ``corpus`` where it begins, ``one.py`` works on one target in a process of its
own, ``__main__.py`` on all of them in turn. What was found becomes a file of the corpus, which
``tests/unit/test_fuzz.py`` feeds to its target.
"""
