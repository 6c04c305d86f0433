"""Invoicing: lines, documents and accounts of contracts; pure, one small file a rule.

``bill`` closes one billing period of one contract; ``release`` takes documents back (credit notes, voids). Records are
in ``records``. A flow folds rated usage into ``UsageSum`` rows and keeps one ``Account`` a contract.
"""
