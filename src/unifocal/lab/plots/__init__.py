"""Figures of the losses themselves (`unifocal plot`), drawn from what the losses say, never from a copy of a formula.

rows         which losses are drawn, with which gamma and delta, in which panels
probing      a loss as a function of p_t: values and gradients
curves       what is drawn of that
family       which loss becomes which, from `unifocal.identities`, each verified while it is drawn
places       where the losses and the arrows between them are
writing      a figure as an SVG, PDF or PNG file
"""
