// A real OpenID provider (the certified oidc-provider) that plays the CI system: client credentials with a resource
// indicator give a JWT access token, discovery and JWKS are published as CI systems publish theirs.
//
// Usage: node provider.mjs CERTIFICATE KEY   It prints {"issuer": URL}, then obeys one JSON document per line of stdin
// and answers each with a line:
//   {"keys": [JWK, ...]}       sign with these private keys from now on; the first one for an algorithm signs
//   {"token": {claims, audience, alg, secret, header, ttl}}   what the next tokens are like
import { createServer } from 'node:https';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

import Provider from 'oidc-provider';

const [certificate, key] = process.argv.slice(2);
console.info = console.warn = console.error; // the provider's notices: stdout is for our answers
const say = (document) => process.stdout.write(`${JSON.stringify(document)}\n`);
let provider;
let token = {};
const requested = {};

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request, response) => {
  const path = request.url.split('?')[0];
  requested[path] = (requested[path] ?? 0) + 1;
  provider.callback()(request, response);
});

function makeProvider(issuer, keys) {
  return new Provider(issuer, {
    jwks: { keys },
    clients: [{ client_id: 'ci', client_secret: 'secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] }],
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope: '',
          audience: token.audience,
          accessTokenTTL: token.ttl ?? 300,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: token.alg ?? 'RS256', ...(token.secret ? { key: Buffer.from(token.secret) } : {}) } },
        }),
      },
    },
    formats: {
      customizers: {
        jwt: (context, issued, parts) => {
          Object.assign(parts.payload, token.claims);
          parts.header = token.header;
        },
      },
    },
  });
}

server.listen(0, '127.0.0.1', () => {
  const issuer = `https://localhost:${server.address().port}`;
  say({ issuer });
  createInterface({ input: process.stdin }).on('line', (line) => {
    const command = JSON.parse(line);
    if (command.keys) provider = makeProvider(issuer, command.keys);
    if (command.token) token = command.token;
    say({ requested });
  }).on('close', () => process.exit(0));
});
