"""The shipped activations, a file each. A new file is a new activation: nothing else names it.

A file holds

    ABOUT                          a literal, what is known without compiling: see `engine.activation`
    value_and_slope(z, parameter)  phi(z) and phi'(z) of a scalar; ``parameter`` is the number in brackets, 0 if there is none

and, where they are known,

    point(parameter, s)            what its duals know of a point, see `formulas.duals`
    duals(parameter, one, points, first, gap, slope)   a row of pairs, see there
    fourth_moments(parameter, s1, s2, gap)   E[phi^2 phi^2], E[phi phi' phi phi'] and E[phi'^2 phi'^2] of a pair

    gate(parameter)                what tells whether z is above 0, where that depends on the parameter

In the formulas of docstrings u and v are centred Gaussian variables of standard deviations s1 and s2 and correlation rho, with
covariances k11 = s1^2, k12 = s1 s2 rho and k22 = s2^2. Of a point alone s is the standard deviation.

Without duals expectations come from `infinite.expectations`, which controls its error.
"""
