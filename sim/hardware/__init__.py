"""Chips: what they are made of, and the physics of that. Knows number types and operands of workloads, and no mappings.

What a chip is       chip (frozen data in base units), options (of how a unit is costed), designs (many chips at once)
                     precisions (what a precision means on a chip)
From a file          load, then schema (strict), fields, meanings (what each key means), extends, compile; back: dump
Changes              override (`array.rows=128`), rederive (what follows from it)
Physics              technology, technology_data (tables with sources), physical (area, power, energies), supply, money
In words             describe
Measured devices     calibration (fitted constants, as data)
"""
