// Package registry keeps what training makes: artefacts addressed by the digest of their content, numbered versions of
// models, aliases such as "champion" that move by compare-and-set, and the history of every move.
//
// On an event's way it stands between training, which puts artefacts in and moves the alias, and serving and monitor,
// which read them. Lineage is walked both ways: what an artefact was made of, and what was made of it.
//
// It refuses content that is not what its digest says (Corrupt), a manifest that names an artefact the registry does not
// have (NotFound), and a move whose expected digest is no longer the alias's (Conflict). Nothing it keeps is ever
// changed: artefacts are written once under their digest, a model's history only grows.
//
// One folder serves several processes of one machine or of one shared file system with flock(2). It is an OCI image
// layout, so that registry/oci and other tools copy the very bytes that are kept here:
//
//	oci-layout, index.json           every version as an OCI artefact (pack.go), made of the histories
//	blobs/sha256/abcd…               contents, and what index.json names
//	lock                             held while index.json is written
//	manifests/sha256/ab/abcd….json   what the content is and what it was made of
//	models/<model>/history.jsonl     versions, alias moves and runs, one JSON object a line; the only truth about them
//	models/<model>/history.end       how many lines that are, and the sum of the last, which covers all
//	models/<model>/lock              held while the history is appended to
//	models/<model>/<purpose>.claim   held by the one process that does a thing, such as training the first model
//	tmp/                             content on its way in
//
// Any package above schemas may import it; it imports neither features nor streams.
package registry
