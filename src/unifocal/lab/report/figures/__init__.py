"""Figures of the report, drawn once and written three ways: into the page, as SVG and as PDF.

style        size, fonts, colours, and how a figure becomes SVG whose colours follow the page
means        mean and interval, cases, sizes: a row for each loss
ranks        critical differences, stability of ranks
matrix       p-values of many losses as a picture
scatter      precision against recall
curves       learning curves, sweeps
trials       what a search has tried
lesions      how large the lesions are
"""
