"""The live stream: the listen-key lease, liveness, and the consumer that turns frames into rows.

Knows nothing of the reconciler: it opens gaps as rows and leaves the healing to whoever reads them.
"""
