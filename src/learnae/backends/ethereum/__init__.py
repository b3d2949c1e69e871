"""The `Chain` port on an Ethereum node, over JSON-RPC: `open_ethereum_chain`. The only place that knows the contracts' ABI."""

from learnae.backends.ethereum.chain import Cost, EthereumChain, ask_faucet, open_ethereum_chain
from learnae.backends.ethereum.options import ChainOptions
from learnae.backends.ethereum.wallet import WalletKey

__all__ = ["ChainOptions", "Cost", "EthereumChain", "WalletKey", "ask_faucet", "open_ethereum_chain"]
