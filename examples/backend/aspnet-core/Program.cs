// A backend that answers only what came through syncgate.
using System.Security.Claims;

var builder = WebApplication.CreateBuilder(args);
var app = builder.Build();
var keySet = app.Configuration["KeySet"] ?? "http://127.0.0.1:8444/.well-known/jwks.json";
var http = new HttpClient { Timeout = TimeSpan.FromSeconds(5) };
var verifier = new IdentityVerifier("backend", () => keySet.StartsWith("http")
    ? http.GetByteArrayAsync(keySet).GetAwaiter().GetResult()
    : File.ReadAllBytes(keySet));

app.Use(async (context, next) =>
{
    var proof = context.Request.Headers["X-Auth-Identity"].ToString();
    var claims = verifier.Verify(proof, context.Request.Path, DateTimeOffset.UtcNow);
    if (claims == null)
    {
        context.Response.StatusCode = StatusCodes.Status403Forbidden;
        await context.Response.WriteAsJsonAsync(
            new { success = false, messages = "Not through the gateway", code = 403 });
        return;
    }
    context.User = new ClaimsPrincipal(new ClaimsIdentity(
        claims.Select(claim => new Claim(claim.Key, claim.Value)), "syncgate", "sub", null));
    await next();
});

app.MapPost("/api/SyncData", (HttpContext context) =>
    new { success = true, messages = "Success", records = 0, user = context.User.Identity?.Name, code = 200 });
app.Run();
