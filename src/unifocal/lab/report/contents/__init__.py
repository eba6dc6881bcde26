"""What stands in each section of the report: tables and figures from blocks and files, in words.

overview    the answers, and what all blocks say together
results     one block: its tables and figures
compared    the tables that compare losses with each other
training    learning curves, cost, sweep, search
data        what was compared on: Table 1, lesions, near-duplicates, folds
methods     completeness, settings, versions, how the numbers were made
"""
