// Package packaging holds what is given out beside the program: packages
// (build, nfpm.yaml), units for systemd, container images and manifests, manual
// pages, documentation, and the tests of all that.
package packaging
