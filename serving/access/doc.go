// Package access decides who may ask the endpoints, and for what: TLS with certificates that are read again when they change, client
// certificates, and bearer tokens with rights.
//
// A token is 256 random bits; the file of tokens holds its SHA-256 alone, with the rights and the models it is for, so that who reads the
// file cannot use what is in it. Without a file of tokens everybody may do everything that the network lets through.
//
// The check has two parts. At the edge, Guard (HTTP) and Guard.Enter (gRPC) find out whose the token is and whether it has the right that
// the path asks for; a path that no rule names asks for admin. Where a model or feature group is known, serving asks Allows. What is refused
// does not tell whether a model exists.
package access
