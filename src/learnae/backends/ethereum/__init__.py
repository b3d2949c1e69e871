"""The `Chain` port on an Ethereum node, over JSON-RPC: `open_ethereum_chain`. The only place that knows the contracts' ABI."""

import sys

_recursion_limit = sys.getrecursionlimit()

from learnae.backends.ethereum.chain import Cost, EthereumChain, ask_faucet, open_ethereum_chain  # noqa: E402
from learnae.backends.ethereum.options import ChainOptions  # noqa: E402
from learnae.backends.ethereum.wallet import WalletKey  # noqa: E402

# A library under eth-account (py_ecc) raises the limit to 100,000 for everybody: then a stranger's deeply nested bytes would
# end this process with a segmentation fault instead of a RecursionError.
sys.setrecursionlimit(_recursion_limit)

__all__ = ["ChainOptions", "Cost", "EthereumChain", "WalletKey", "ask_faucet", "open_ethereum_chain"]
