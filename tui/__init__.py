"""The dashboard, a Textual application that shows a results directory.

It reads files and starts commands of `mnist-suite`; it trains nothing and loads neither torch nor optuna.

    app.py          the application: modes, state, actions of keys
    launching.py    commands of mnist-suite: the dialogues before they start, and how they have ended
    session.py      what a screen may use of the application
    screens/        one file a screen; widgets/ are the parts that screens are made of
    model/          what is known: reading the results directory, filtering and sorting. No Textual.
    draw/           from the model to text: cells, charts, figures, images. No Textual.
    ascii.py        the same in ASCII, for terminals that lack the glyphs
    work/           the words, forms and processes of commands, and the predictor
    testing/        for tests, benchmarks and documentation only: synthetic studies, pictures, timings
"""
