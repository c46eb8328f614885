// Package oci copies versions of models between a registry's folder and any OCI registry or OCI image layout.
//
// It stands beside an event's way: what it copies is what serving would load. A version travels as a CNCF ModelPack artefact (registry.Pack) with
// everything that it was made of; its training rows go along only when asked for. Blobs, manifests and digests are the same at both ends.
//
// It refuses what is not a version packed so (Refused), and blobs that are not what their digests say (Corrupt). What a copy that was cut short
// has left are whole blobs, which the next one does not copy again.
//
// Only cmd imports it: all of oras-go is behind it.
package oci
