// Package docs holds the documents. It has no code but tests, which hold the documents to the code.
package docs
