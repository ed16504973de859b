"""An introductory lecture, reproduced: every number, table and figure, on one page.

A product of its own, on top of the package: nothing but the command `jaxlin lecture` imports it.

    chapters    one module for each section of the lecture, measured
    nouns       what chapters get and return: lessons, claims, verdicts
    figures     the lecture's figures; those of losses are `loss_figures`
    page        chapters as one page
    playground  a page that computes for itself
    reproduce   all of it, in order
"""
