// A chain of hardhat for tests: nothing is compiled, and what hardhat caches goes where the test says.
module.exports = {
  solidity: "0.8.28",
  networks: { hardhat: { chainId: 31337, allowUnlimitedContractSize: false } },
  paths: { root: process.env.LEARNAE_HARDHAT_FOLDER },
};
