"""GS-LRM (Zhang et al. 2024): a transformer over the patches of posed photographs.

    tokens          photographs and cameras to patches, of which the covered ones are kept
    network         patches to raw numbers, in Flax
    decoding        raw numbers to Gaussians
    reconstruction  the three together, and renders of their result
    supervision     what a training step minimises

The model that FaceLift trains is here as well (`Architecture.facelift`), written from its formulas
and proved equal in numbers; none of its code is.
"""
