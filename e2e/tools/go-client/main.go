// The Go client library of rqlite, unchanged, against a node: a table, a row, the row read again, the leader.
//
// usage: go-client URL CA [CERTIFICATE KEY]. Prints "ok"; anything else is an error, with status 1.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/rqlite/gorqlite"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 && len(os.Args) != 5 {
		log.Fatal("usage: go-client URL CA [CERTIFICATE KEY]")
	}
	authorities, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(authorities) {
		log.Fatalf("no certificate in %s", os.Args[2])
	}
	if len(os.Args) == 5 {
		pair, err := tls.LoadX509KeyPair(os.Args[3], os.Args[4])
		if err != nil {
			log.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: 10 * time.Second}
	if err := use(os.Args[1], client); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ok")
}

func use(url string, client *http.Client) error {
	connection, err := gorqlite.OpenWithClient(url, client)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := connection.WriteOne("CREATE TABLE IF NOT EXISTS go_client(id INTEGER PRIMARY KEY, name TEXT)"); err != nil {
		return err
	}
	insert := gorqlite.ParameterizedStatement{
		Query:     "INSERT INTO go_client(name) VALUES(?)",
		Arguments: []interface{}{"fiona"},
	}
	written, err := connection.WriteOneParameterized(insert)
	if err != nil {
		return err
	}
	rows, err := connection.QueryOneParameterized(gorqlite.ParameterizedStatement{
		Query:     "SELECT name FROM go_client WHERE id = ?",
		Arguments: []interface{}{written.LastInsertID},
	})
	if err != nil {
		return err
	}
	var name string
	if !rows.Next() {
		return fmt.Errorf("no row")
	}
	if err := rows.Scan(&name); err != nil {
		return err
	}
	if name != "fiona" {
		return fmt.Errorf("read %q", name)
	}
	leader, err := connection.Leader()
	if err != nil {
		return err
	}
	if leader == "" {
		return fmt.Errorf("no leader")
	}
	return nil
}
