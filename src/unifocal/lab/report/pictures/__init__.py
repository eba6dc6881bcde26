"""Truth and predictions on telling cases, as the papers' Figure 3.

choice     which cases are shown, and their files read
tiles      a slice of a case as SVG: the image once, contours over it
surfaces   a volume as seen from outside
gallery    these in order: `galleries`
"""
