"""Margin presets: several venues' rules as documents over one scenario framework.

A preset is a document (scenario rows with a weight and a reason each, repricing, aggregation, add-ons, discounting, the
rules of initial and maintenance margin); `evaluate` applies it to a case in float64, `exact` in integers, never below.
"""
