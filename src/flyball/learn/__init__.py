"""2. What we can predict, how well, and may it be released.

    declared    model, task, knobs, search, split, treatment, rule, behaviour, algorithms
    rows        features/ and examples, cut by split and groups, encoded by encoding/, doubted by doubts/
    fitted      trying/ chooses knobs; fit/ fits, and learns what follows a score (finish); export/ packs it
    judged      quality/ measures, examine/ and explain/ look closer, gates decide
    read        reports/, drawn by drawing/; reference is what monitors compare life with

A version is made from the top line to the bottom one.
"""
