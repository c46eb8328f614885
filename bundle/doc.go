// Package bundle makes folders that score with nothing around them: the program, one version of one model, and the project that says how its
// inputs are made. No Kafka, no Redis and no network are needed where one is taken to.
//
//	millrace            the program, for one system and processor
//	project/            millrace.yaml and the files that it names, whole and unchanged
//	registry/           a model registry, which is an OCI image layout, with that version and what it was made of, but not its training rows
//	bundle.json         what is in the bundle, with the digest of every file
//
// The project is not cut down to what the model uses: it is small, and a definition that is the same text is the same definition. Open refuses a
// bundle with a file that is not what bundle.json says.
package bundle
